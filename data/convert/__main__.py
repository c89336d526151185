"""python -m data.convert"""

from utils.program import run_program

from data.convert import main

if __name__ == "__main__":
    run_program(main)
