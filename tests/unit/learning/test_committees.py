"""Committees: members that differ, one pass that is shared, images that do not depend on their batch, memory."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import starmap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ml_backend.errors import CheckpointError, ConfigurationError
from ml_backend.learning.checkpoints import Checkpoints, VersionRecord
from ml_backend.learning.networks import SegmentationNetwork, build, is_out_of_memory, working_bytes
from ml_backend.learning.prediction.batches import Item
from ml_backend.learning.prediction.committees import Committee, McDropout, load_ensemble, mc_dropout
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.prediction.predictors import fresh_predictor, make_committee
from ml_backend.settings import Settings
from strategies import Batch, create

CPU = torch.device("cpu")
CLASSES = ("background", "cell", "vessel")
RATE = 0.3
SETTINGS = {"architecture": "unet", "encoder": "tu-tf_efficientnet_lite0", "dropout": RATE, "input_size": 64}
SIZES = [(48, 64), (64, 48), (30, 30), (1, 1), (64, 64), (33, 50)]

pytestmark = pytest.mark.usefixtures("one_thread")


def make_network(seed: int = 0, dropout: float = RATE) -> SegmentationNetwork:
    torch.manual_seed(seed)
    network = build(classes=len(CLASSES), dropout=dropout)
    with torch.no_grad():  # an untrained head is nearly constant: give it something to say
        network.get_submodule("model.segmentation_head.0").weight.mul_(20)
    return network


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(make_network(), CLASSES, 64, CPU)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """A version with an ensemble of three, none of them the version's own network."""
    found = Checkpoints(tmp_path_factory.mktemp("model"))
    found.create(VersionRecord(CLASSES, "a", "b", settings=SETTINGS), make_network().state_dict())
    states = [make_network(seed).state_dict() for seed in (1, 2, 3)]
    found.committees.put(1, states, {"classes": CLASSES, "settings": SETTINGS})
    return found


@pytest.fixture(params=["mc_dropout", "ensemble"])
def committee(request: pytest.FixtureRequest, predictor: Predictor, checkpoints: Checkpoints) -> Committee:
    settings = Settings(committee=request.param, members=5, seed=7)
    return make_committee(predictor, checkpoints, checkpoints.get(1), settings)


def picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    smooth = functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)[0]
    return (smooth * 255).byte().permute(1, 2, 0).numpy()


def items() -> list[Item]:
    return list(starmap(Item, enumerate(picture(height, width, seed) for seed, (height, width) in enumerate(SIZES))))


def probabilities_of(batches: Iterator[Batch]) -> dict[int, Tensor]:
    """Image id -> probabilities (M,C,h,w) at its valid pixels."""
    found = {}
    for batch in batches:
        assert batch.probabilities is not None
        for index, number in enumerate(batch.ids):
            rows, columns = batch.valid[index].any(1).sum(), batch.valid[index].any(0).sum()
            found[int(number)] = batch.probabilities[:, index, :, :rows, :columns]
    return found


# -- what a batch holds -----------------------------------------------------------------------------------------------


def test_a_batch_holds_the_members_and_the_features_of_the_serving_network(
    predictor: Predictor, committee: Committee
) -> None:
    single = {n: b.features for b in predictor.batches(items(), features=True, batch_size=1) for n in b.ids}
    for batch in predictor.batches(items(), features=True, batch_size=1, committee=committee):
        assert batch.probabilities is not None
        assert batch.probabilities.shape[:3] == (committee.members, 1, len(CLASSES))
        assert batch.probabilities.dtype == torch.float32
        torch.testing.assert_close(batch.features, single[batch.ids[0]], atol=1e-5, rtol=1e-5)
    (batch,) = predictor.batches(items()[:1], features=False, batch_size=1, committee=committee)
    assert batch.features is None


@pytest.mark.parametrize("batch_size", [2, 100])
def test_what_is_said_of_an_image_does_not_depend_on_its_batch(
    predictor: Predictor, committee: Committee, batch_size: int
) -> None:
    copies = [Item(one.id + 100 * copy, one.image) for copy in range(3) for one in items()]
    alone = probabilities_of(predictor.batches(items(), features=True, batch_size=1, committee=committee))
    stream = predictor.batches(reversed(copies), features=True, batch_size=batch_size, committee=committee)
    together = probabilities_of(stream)
    assert len(together) == len(copies)
    for number, said in together.items():
        torch.testing.assert_close(said, alone[number % 100], atol=2e-4, rtol=1e-3)


def test_methods_accept_it(predictor: Predictor, committee: Committee) -> None:
    for batch in predictor.batches(items(), features=True, batch_size=4, committee=committee):
        assert (create("bald").observe(batch).information > 0).all()


def test_all_members_differ_from_each_other_somewhere(predictor: Predictor, committee: Committee) -> None:
    said = probabilities_of(predictor.batches(items(), features=False, batch_size=1, committee=committee))[4]
    different = {(a, b) for a in range(len(said)) for b in range(a) if not torch.equal(said[a], said[b])}
    assert len(different) == committee.members * (committee.members - 1) // 2


def test_the_network_stays_in_evaluation_mode(predictor: Predictor) -> None:
    before = {name: tensor.clone() for name, tensor in predictor.network.state_dict().items()}
    members = mc_dropout(predictor.network, 4, 0)
    list(predictor.batches(items(), features=False, batch_size=2, committee=members))
    assert not any(module.training for module in predictor.network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in predictor.network.state_dict().items())


# -- MC dropout -------------------------------------------------------------------------------------------------------


def test_encoder_and_decoder_run_once_for_all_members(predictor: Predictor) -> None:
    members = mc_dropout(predictor.network, 9, 0)
    list(predictor.batches(items()[:1], features=True, batch_size=1, committee=members))  # memory is measured
    runs: Counter[str] = Counter()
    parts = {name: predictor.network.model.get_submodule(name) for name in ("encoder", "decoder", "segmentation_head")}
    hooks = [
        part.register_forward_hook(lambda *_, name=name: runs.update([name]))  # type: ignore[misc]
        for name, part in parts.items()
    ]
    stream = predictor.batches(items()[:1], features=True, batch_size=1, committee=members)
    next(stream)
    for hook in hooks:
        hook.remove()
    assert runs == {"encoder": 2, "decoder": 2, "segmentation_head": 1 + 9}  # one of each measures memory


def test_masks_are_those_of_training(predictor: Predictor) -> None:
    masks = mc_dropout(predictor.network, 400, 3).masks
    assert masks.shape == (400, 16)  # the channels of unet's decoder
    assert masks.unique().tolist() == [0.0, pytest.approx(1 / (1 - RATE))]
    assert float(masks.mean()) == pytest.approx(1, abs=0.03)  # σ = sqrt(p / (1 - p) / 6400) = 0.008


@pytest.mark.parametrize("architecture", ["fpn", "pspnet"])
def test_masks_leave_out_what_training_does_where_a_decoder_ends_in_a_dropout_of_its_own(architecture: str) -> None:
    network = build(architecture, "resnet18", "none", classes=2, dropout=0.1)
    dropped = []
    head = network.model.get_submodule("segmentation_head")
    hook = head.register_forward_pre_hook(lambda _, maps: dropped.append((maps[0].amax((2, 3)) == 0).float().mean()))
    with torch.no_grad():
        for _ in range(20):
            network.train()(torch.rand(8, 3, 64, 64))
    hook.remove()
    assert float(torch.stack(dropped).mean()) == pytest.approx(1 - 0.9 * 0.8, abs=0.02)  # pspnet: σ = 0.0016
    masks = mc_dropout(network.eval(), 200, 0).masks
    assert masks.unique().tolist() == [0.0, pytest.approx(1 / (0.9 * 0.8))]
    assert float((masks == 0).float().mean()) == pytest.approx(1 - 0.9 * 0.8, abs=0.02)


def test_no_member_is_the_network_itself() -> None:
    """Of U-Net's 16 channels, a dropout of 0.1 left all to 18 % of the members."""
    masks = mc_dropout(make_network(dropout=0.1).eval(), 400, 0).masks
    assert bool((masks == 0).any(dim=1).all())
    given = (0.9 - 0.9**16) / (1 - 0.9**16)  # the share that is kept, where not all are
    assert float((masks > 0).float().mean()) == pytest.approx(given, abs=0.015)  # σ = 0.004


def test_the_same_seed_gives_the_same_members(predictor: Predictor) -> None:
    first, same, other = (mc_dropout(predictor.network, 20, seed).masks for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_many_members_agree_with_dropout_in_training_on_average(predictor: Predictor) -> None:
    """Logits are linear in the mask here, so their expectation is what the network says without dropout."""
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        opinions, _ = mc_dropout(predictor.network, 2000, 0).opinions(predictor.network, image, features=False)
        logits = torch.stack(list(opinions))  # (M,1,C,H,W)
        error = logits.mean(0) - predictor.network(image)
    sigma = logits.std(0) / 2000**0.5
    assert float((error.abs() / sigma).mean()) < 1.5  # |N(0,1)| is 0.8 on average; channels are shared by all pixels


def test_a_mask_is_what_dropout_does(predictor: Predictor) -> None:
    image, mask = torch.rand(1, 3, 64, 64), torch.tensor([[0.0, 1 / 0.7] * 8, [1 / 0.7] * 16])
    with torch.no_grad():
        decoded, _ = predictor.network.decode(image)
        wanted = predictor.network.classify(decoded * mask[0].view(1, -1, 1, 1), 64, 64)
        opinions, _ = McDropout(mask, len(CLASSES)).opinions(predictor.network, image, features=False)
        torch.testing.assert_close(next(opinions), wanted)


def test_without_dropout_there_is_no_committee_of_it() -> None:
    network = make_network(dropout=0.0).eval()
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_DROPOUT = 0: .* Set NEXTMASK_DROPOUT to 0\.1 or more and"):
        mc_dropout(network, 20, 0)


def test_members_that_say_the_same_are_refused() -> None:
    network = make_network(dropout=1e-6).eval()  # no channel is ever left out
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_DROPOUT = 1e-06: .* NEXTMASK_COMMITTEE to 'ensemble'"):
        mc_dropout(network, 20, 0)
    with torch.no_grad():  # masks differ, but the head looks at nothing
        network.get_submodule("model.segmentation_head.0").weight.zero_()
    network.dropout.p = 0.5
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_DROPOUT = 0\.5: "):
        mc_dropout(network, 20, 0)


def test_a_committee_needs_two(predictor: Predictor) -> None:
    with pytest.raises(ConfigurationError, match="NEXTMASK_MEMBERS = 1"):
        mc_dropout(predictor.network, 1, 0)


@pytest.mark.parametrize("architecture", ["fpn", "deeplabv3plus", "dpt", "pan", "segformer", "upernet"])
def test_other_architectures(architecture: str) -> None:
    encoder = "tu-vit_tiny_patch16_224" if architecture == "dpt" else "resnet18"
    network = build(architecture, encoder, "none", classes=2, dropout=0.5).eval()
    members = mc_dropout(network, 3, 0)
    image = torch.rand(1, 3, 70, 50)
    with torch.no_grad():
        opinions, _ = members.opinions(network, image, features=True)
        assert {tuple(logits.shape) for logits in opinions} == {(1, 2, 70, 50)}
    assert working_bytes(network) > 4 * 3


# -- ensembles --------------------------------------------------------------------------------------------------------


def test_an_ensemble_says_what_its_networks_say(predictor: Predictor, checkpoints: Checkpoints) -> None:
    ensemble = load_ensemble(checkpoints, checkpoints.get(1), CPU)
    said = probabilities_of(predictor.batches(items(), features=True, batch_size=2, committee=ensemble))
    for index, seed in enumerate((1, 2, 3)):
        own = Predictor(make_network(seed), CLASSES, 64, CPU)
        wanted = probabilities_of(own.batches(items(), features=False, batch_size=1))
        for number, one in wanted.items():
            torch.testing.assert_close(said[number][index], one[0], atol=2e-4, rtol=1e-3)


def test_an_ensemble_that_is_not_there(checkpoints: Checkpoints, tmp_path: Path) -> None:
    empty = Checkpoints(tmp_path)
    version = empty.create(VersionRecord(CLASSES, "a", "b", settings=SETTINGS), make_network().state_dict())
    with pytest.raises(CheckpointError, match="Version 1 has no committee"):
        load_ensemble(empty, version, CPU)


def test_an_ensemble_of_copies_is_refused(tmp_path: Path) -> None:
    found = Checkpoints(tmp_path)
    version = found.create(VersionRecord(CLASSES, "a", "b", settings=SETTINGS), make_network().state_dict())
    found.committees.put(1, [make_network().state_dict()] * 2, {"classes": CLASSES, "settings": SETTINGS})
    with pytest.raises(CheckpointError, match="2 members of the committee of version 1 say the same"):
        load_ensemble(found, version, CPU)


def test_before_the_first_version_there_are_descriptors() -> None:
    predictor = fresh_predictor(Settings(input_size=64, device="cpu"), CLASSES)
    (batch,) = predictor.batches(items()[:1], features=True, batch_size=4)
    assert batch.features is not None
    assert float(batch.features.std()) > 0.01


# -- memory -----------------------------------------------------------------------------------------------------------


def sizes_of(predictor: Predictor, committee: Committee, memory: int, count: int = 12) -> list[int]:
    images = [Item(number, picture(64, 64, number)) for number in range(count)]
    stream = predictor.batches(images, features=False, batch_size=count, committee=committee, memory=memory)
    return [len(batch.ids) for batch in stream]


def test_batches_are_cut_to_fit_the_memory(predictor: Predictor) -> None:
    small, large = mc_dropout(predictor.network, 2, 0), mc_dropout(predictor.network, 100, 0)
    assert sizes_of(predictor, small, 1 << 30) == [12]
    assert sizes_of(predictor, small, 1) == [1] * 12  # a single image is tried whatever it needs
    for memory in (20_000_000, 60_000_000):
        few, many = sizes_of(predictor, large, memory)[0], sizes_of(predictor, small, memory)[0]
        assert 1 <= few < many
        assert few * 2 * 100 * 3 * 64 * 64 * 4 < memory  # two batches of probabilities


MEASURED = """
import resource, numpy as np, torch
from ml_backend.learning.prediction.committees import mc_dropout
from ml_backend.learning.prediction.predictor import Item, Predictor
from ml_backend.learning.networks import build
from strategies import create
torch.set_num_threads(1)
predictor = Predictor(build(classes=8, dropout=0.3), "abcdefgh", 192, torch.device("cpu"))
members, method = mc_dropout(predictor.network, 20, 0), create("bald")
image = np.random.default_rng(0).integers(0, 255, (192, 192, 3), np.uint8)
def run(count, memory):
    items = (Item(number, image) for number in range(count))
    for batch in predictor.batches(items, features=True, batch_size=64, committee=members, memory=memory):
        method.observe(batch)
run(1, 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(12, {memory})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_stays_below_the_bound() -> None:
    """All 12 images at once would take 566 MB of probabilities alone."""
    code = MEASURED.replace("{memory}", "300_000_000")
    megabytes = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert megabytes < 300


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
]


class Narrow(Committee):
    """Two members for which more than `most` images at once are too many."""

    members, classes = 2, len(CLASSES)

    def __init__(self, most: int, error: Exception) -> None:
        self.most, self.error, self.seen = most, error, list[int]()

    def opinions(
        self, serving: SegmentationNetwork, images: Tensor, valid: Tensor | None = None, *, features: bool
    ) -> tuple[Iterator[Tensor], Tensor | None]:
        def members() -> Iterator[Tensor]:
            yield serving(images)
            self.seen.append(len(images))
            if len(images) > self.most:
                raise self.error
            yield serving(images.flip(-1))

        return members(), None


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_halved_and_the_run_goes_on(predictor: Predictor, error: Exception) -> None:
    narrow = Narrow(4, error)
    assert sizes_of(predictor, narrow, 1 << 40) == [3] * 4
    assert narrow.seen == [12, 6, 3, 3, 3, 3]  # what does not fit is tried once, not for every batch


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_single_image_that_does_not_fit_names_the_settings(predictor: Predictor, error: Exception) -> None:
    with pytest.raises(ConfigurationError, match=r"64 pixels.*NEXTMASK_INPUT_SIZE.*fewer NEXTMASK_MEMBERS"):
        sizes_of(predictor, Narrow(0, error), 1 << 40)


def test_other_errors_are_not_taken_for_a_lack_of_memory(predictor: Predictor) -> None:
    error = RuntimeError("shapes do not match")
    assert not is_out_of_memory(error)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        sizes_of(predictor, Narrow(0, error), 1 << 40)
