"""TFRecords as the TF Object Detection API's documents describe them, for tests."""

import io

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30


def png(seed=0, size=(WIDTH, HEIGHT), suffix="PNG"):
    """The bytes of an image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix)
    return buffer.getvalue()


def example(image, objects=(), size=(WIDTH, HEIGHT), **changes):
    """The bytes of a tf.Example of objects (x1, y1, x2, y2 in pixels, class text).

    changes: keys below image/, "__" for "/", and their lists; None leaves a key out.
    """
    boxes = [box for *box, _ in objects]
    values = {
        "encoded": [image],
        "format": [b"png"],
        "width": [size[0]],
        "height": [size[1]],
        "filename": [b"a.png"],
        "source_id": [b"a"],
        "object/bbox/xmin": [box[0] / size[0] for box in boxes],
        "object/bbox/ymin": [box[1] / size[1] for box in boxes],
        "object/bbox/xmax": [box[2] / size[0] for box in boxes],
        "object/bbox/ymax": [box[3] / size[1] for box in boxes],
        "object/class/text": [name.encode() for *_, name in objects],
    } | {key.replace("__", "/"): value for key, value in changes.items()}
    return serialized({f"image/{k}": value for k, value in values.items() if value is not None})


def serialized(values):
    """The bytes of a tf.Example of lists by key."""
    import tensorflow as tf

    features = {key: _feature(value) for key, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _feature(values):
    import tensorflow as tf

    if values and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def write_records(path, examples, compression=""):
    import tensorflow as tf

    if "://" not in str(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for data in examples:
            writer.write(data)
    return path
