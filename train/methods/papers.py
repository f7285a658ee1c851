"""The methods of the papers, each with its authors' settings for a ViT-B and a ViT-L.

DeCLIP is here twice: as in its paper, and as in its released code. Settings that the papers do not give are
those of CLIPSelf's released code, on which DeCLIP, R-SC and DenseVLM are built.
"""

from densecli.train.methods import METHODS, Method, Preset

ADAMW = {"weight_decay": 0.1, "betas": (0.9, 0.98), "schedule": "cosine", "epochs": 6}
CLIPSELF = {**ADAMW, "lr": 1e-5, "batch_size": 2, "alpha": 0.7, "mode": "value"}
CANVAS = {"canvas": 1024}
LARGE = Preset(settings={"alpha": 0.95}, store={"canvas": 896})

# R-SC takes the boxes of a region proposal network.
RSC = {**CLIPSELF, "lr": 2e-5, "batch_size": 4}
PROPOSALS = {**CANVAS, "regions": "proposals"}


# The learning rate in DenseVLM's text; its table 9 has 1e-4.
DENSEVLM = {**ADAMW, "lr": 1e-5, "batch_size": 48, "alpha": 0.9, "mode": "value"}
DENSEVLM_STORE = {"canvas": 512, "regions": "grid-paper"}


METHODS.add(
    "densevlm",
    Method(
        losses={"region_kl": 1.0},
        settings={**DENSEVLM, "theta": 0.3, "decoupling": "densevlm"},
        store=DENSEVLM_STORE,
        gpus=4,
    ),
    help="DenseVLM: categories that a P-VLM retrieves for regions, with things and stuff decoupled.",
)
METHODS.add(
    "feature-kd",
    Method(
        losses={"region_cosine": 1.0},
        settings={**DENSEVLM, "loss_options": {"region_cosine.projection": "true"}},
        store=DENSEVLM_STORE,
        of_pvlm=("crops",),
        gpus=4,
    ),
    help="DenseVLM's baseline of feature distillation: a P-VLM's crops, by a learnt projection.",
)
METHODS.add(
    "logit-kd",
    # The paper gives neither a threshold nor a decoupling: every region learns from all categories.
    Method(
        losses={"region_kl:crop-labels": 1.0},
        settings={**DENSEVLM, "theta": 0.0, "decoupling": "none"},
        store=DENSEVLM_STORE,
        gpus=4,
    ),
    help="DenseVLM's baseline of logits distillation: a P-VLM's categories of crops.",
)
METHODS.add(
    "clipself",
    Method(
        losses={"region_cosine": 1.0},
        settings=CLIPSELF,
        store={**CANVAS, "regions": "grid-clipself"},
        large=LARGE,
        gpus=8,
    ),
    help="CLIPSelf: the student's own [CLS] embeddings of crops.",
)
METHODS.add(
    "declip",
    Method(
        losses={"region_cosine": 1.0, "context": 0.25},
        settings={**CLIPSELF, "mode": "qq+scale"},
        store={**CANVAS, "regions": "grid-declip"},
        large=LARGE,
        gpus=8,
    ),
    help="DeCLIP as in its paper: crops, and the token cosines of a vision foundation model.",
)
METHODS.add(
    "declip-released",
    Method(
        losses={"region_cosine": 1.0, "context": 0.1},
        settings={**CLIPSELF, "betas": (0.9, 0.999), "mode": "qq"},
        store={"canvas": 560, "regions": "grid-clipself"},
        large=Preset(settings=LARGE.settings),
        gpus=8,
    ),
    help="DeCLIP as in its released code.",
)
METHODS.add(
    "regiontext",
    Method(losses={"region_text": 1.0}, settings=RSC, store=PROPOSALS, large=LARGE, gpus=8),
    help="RegionText: the P-VLM's best category of each region as its pseudo label.",
)
for name, losses, large, help in (
    (
        "sc-clipself",
        {"region_cosine": 1.0, "spatial:self": 0.2},
        {"spatial:self": 0.4},
        "SC-CLIPSelf: CLIPSelf, and the spatial correlations of the original CLIP.",
    ),
    (
        "sc-regiontext",
        {"region_text": 1.0, "spatial:self": 0.2},
        {"spatial:self": 0.4},
        "SC-RegionText: RegionText, and the spatial correlations of the original CLIP.",
    ),
    (
        "r-sc-clipself",
        {"region_cosine": 1.0, "spatial:refined": 0.2},
        {"spatial:refined": 0.4},
        "R-SC-CLIPSelf: CLIPSelf, and the spatial correlations of a Refiner.",
    ),
    (
        "r-sc-regiontext",
        {"region_text": 1.0, "spatial:refined": 0.2},
        {"spatial:refined": 0.4},
        "R-SC-RegionText: RegionText, and the spatial correlations of a Refiner.",
    ),
    (
        "r-sc-v",
        {"spatial:refined": 1.0},
        {},
        "R-SC-V: the spatial correlations of a Refiner alone; also for students without a text tower.",
    ),
):
    METHODS.add(
        name,
        Method(
            losses=losses,
            settings={**RSC, "spatial_tau": 0.2},
            store=PROPOSALS,
            large=Preset(losses=large, settings=LARGE.settings, store=LARGE.store),
            gpus=8,
        ),
        help=help,
    )
