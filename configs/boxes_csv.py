"""Your own boxes in CSV files: change root, train and val, see docs/datasets.md.

python train.py --config configs/boxes_csv.py --set data.root=PATH data.train=train.csv
"""

from configs.checked import override
from configs.small import config as small

config = override(small, {"name": "boxes_csv", "data.format": "csv"})
