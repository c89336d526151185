"""The classes of COCO, for weights that know them by number only."""

# In the order of their category ids, which run from 1 to 90.
COCO_80 = tuple(
    """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra,
giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
""".replace("\n", " ")
    .strip()
    .split(", ")
)
UNUSED = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # ids of none


def _by_id() -> tuple[str, ...]:
    names = iter(COCO_80)
    return tuple(f"unused {i}" if i in UNUSED else next(names) for i in range(91))


COCO_91 = _by_id()  # place = category id, as torchvision's outputs
