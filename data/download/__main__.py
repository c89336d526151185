"""python -m data.download"""

from data.download import main
from utils.program import run_program

run_program(main)
