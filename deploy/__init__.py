"""A detector as a file that runs without this project, a module a format.

common.py has what they begin with, exported.py opens and runs the files: one file to be copied.
"""

from deploy import onnx, savedmodel, tflite

FORMATS = {  # the names of export.py's --format
    "savedmodel": savedmodel.FORMAT,
    "onnx": onnx.FORMAT,
    "tflite": tflite.FORMAT,
}
