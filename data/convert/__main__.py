"""python -m data.convert"""

from data.convert import main
from utils.program import run_program

run_program(main)
