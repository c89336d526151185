"""Weights of the field: read from other projects' files, downloaded, copied into a model.

    python -m core.weights list                       what is published, and what we call it
    python -m core.weights import FILE --out DIR      a file of another project -> ours
    python -m core.weights import coco --out DIR      the same with a name of the list

`files` reads torch and Keras files into arrays; one module a format (`torchvision`, `yhenon`,
`keras_retinanet`, `keras_applications`) knows its names and conventions; `importing` turns arrays
into `Weights`; `published` is the list; `transfer` copies into a model of other classes.
"""
