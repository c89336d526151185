"""python -m data.convert"""

from data.convert import main
from utils.program import run_program

if __name__ == "__main__":
    run_program(main)
