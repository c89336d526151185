"""python -m data.download"""

from utils.program import run_program

from data.download import main

if __name__ == "__main__":
    run_program(main)
