"""The projects whose files are read: a module for each, which knows its names and conventions."""

from core.weights.formats import keras_applications, keras_retinanet, torchvision, yhenon

FORMATS = {
    known.name: known
    for known in (
        torchvision.RETINANET,
        yhenon.RETINANET,
        torchvision.RESNET,  # after the detectors that have its names, too
        keras_retinanet.RETINANET,
        keras_applications.RESNET,
    )
}
