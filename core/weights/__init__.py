"""Weights of the field: read from other projects' files, downloaded, copied into a model.

    python -m core.weights list                       what is published, and what we call it
    python -m core.weights import FILE --out DIR      a file of another project -> ours
    python -m core.weights import coco --out DIR      the same with a name of the list

`torch_and_keras_files` reads their files into arrays, `formats` knows the names and conventions of
each project, `importing` makes `Weights` of both, which `npz_files` writes and reads with their
conventions; `published` is the list; `transfer` copies into a model of other classes.
"""
