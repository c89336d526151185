"""What TensorFlow will compute on."""

import tensorflow as tf


def use_devices() -> str:
    """Lets GPUs take memory as they need it; returns the name of the device computed on, or "CPU".

    Threads and oneDNN stay as TensorFlow sets them, and nothing is compiled by XLA: each was
    measured and none was faster (docs/performance.md).

    Called before TensorFlow first computes; later, memory stays as it was set then.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # already initialised, by a notebook or a run before
            break
    if not gpus:
        return "CPU"
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
