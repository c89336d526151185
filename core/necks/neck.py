"""What all necks share.

Letters: B batch, h w cells of a level, C channels.
"""

from collections.abc import Callable, Collection

import keras
import tensorflow as tf

from core.layers import Composite


def upsample_to(x: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Doubles (B, h, w, C) by repeating pixels and cuts it to the height and width of `target`."""
    shape, size = tf.shape(x), tf.shape(target)
    x = tf.broadcast_to(x[:, :, None, :, None, :], [shape[0], shape[1], 2, shape[2], 2, shape[3]])
    x = tf.reshape(x, [shape[0], 2 * shape[1], 2 * shape[2], target.shape[3]])
    return x[:, : size[1], : size[2]]


class Neck(Composite, keras.layers.Layer):
    """[C3, C4, C5] -> [P3, P4, P5, P6, P7] of one width, P6 and P7 as RetinaNet makes them.

    P6 is a 3x3 convolution of stride 2 of C5 or P5, P7 one of P6 after a relu.
    """

    def make_coarse(
        self,
        conv: Callable[..., keras.layers.Layer],
        width: int,
        p6_from: str,
        same_padding: Collection[str],
    ) -> None:
        """Convolutions by `conv`; the rest as in `FPN`. Raises ValueError for another `p6_from`."""
        if p6_from not in ("c5", "p5"):
            raise ValueError(f"p6_from: expected c5 or p5, found {p6_from!r}")
        self.p6_from = p6_from
        self.p6 = conv(width, 3, 2, same="p6" in same_padding, name="p6")
        self.p7 = conv(width, 3, 2, same="p7" in same_padding, name="p7")

    def coarse(self, c5: tf.Tensor, p5: tf.Tensor) -> list[tf.Tensor]:
        """P6 and P7."""
        p6 = self.p6(c5 if self.p6_from == "c5" else p5)
        return [p6, self.p7(tf.nn.relu(p6))]
