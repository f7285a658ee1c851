"""The methods of the papers. DeCLIP is there twice: as in its paper, and as in its released code."""

from densecli.train.methods import METHODS, Method

METHODS.add(
    "densevlm",
    Method(losses={"region_kl": 1.0}),
    help="DenseVLM: categories that a P-VLM retrieves for regions, with things and stuff decoupled.",
)
METHODS.add(
    "clipself",
    Method(losses={"region_cosine": 1.0}),
    help="CLIPSelf: the student's own [CLS] embeddings of crops.",
)
METHODS.add(
    "regiontext",
    Method(losses={"region_text": 1.0}),
    help="RegionText: the P-VLM's best category of each region as its pseudo label.",
)
METHODS.add(
    "declip",
    Method(losses={"region_cosine": 1.0, "context": 0.25}, settings={"mode": "qq+scale+rope+unit"}),
    help="DeCLIP as in its paper: crops, and the token cosines of a vision foundation model.",
)
METHODS.add(
    "declip-released",
    Method(losses={"region_cosine": 1.0, "context": 0.1}, settings={"mode": "qq"}),
    help="DeCLIP as in its released code.",
)
METHODS.add(
    "sc-clipself",
    Method(losses={"region_cosine": 1.0, "spatial:self": 0.2}, large={"spatial:self": 0.4}),
    help="SC-CLIPSelf: CLIPSelf, and the spatial correlations of the original CLIP.",
)
METHODS.add(
    "sc-regiontext",
    Method(losses={"region_text": 1.0, "spatial:self": 0.2}, large={"spatial:self": 0.4}),
    help="SC-RegionText: RegionText, and the spatial correlations of the original CLIP.",
)
METHODS.add(
    "r-sc-clipself",
    Method(losses={"region_cosine": 1.0, "spatial:refined": 0.2}, large={"spatial:refined": 0.4}),
    help="R-SC-CLIPSelf: CLIPSelf, and the spatial correlations of a Refiner.",
)
METHODS.add(
    "r-sc-regiontext",
    Method(losses={"region_text": 1.0, "spatial:refined": 0.2}, large={"spatial:refined": 0.4}),
    help="R-SC-RegionText: RegionText, and the spatial correlations of a Refiner.",
)
METHODS.add(
    "r-sc-v",
    Method(losses={"spatial:refined": 1.0}),
    help="R-SC-V: the spatial correlations of a Refiner alone; also for students without a text tower.",
)
