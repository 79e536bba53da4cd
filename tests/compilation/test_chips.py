"""The table of TPU generations and the names of their slices."""

import pytest

from vit_tf.compilation import CHIPS, chip_of, parse_topology

# Of a chip, as Cloud TPU's documentation has it: teraflops in bfloat16, GB/s, and GB of memory.
PUBLISHED = {
    "v2": (45, 700, 16),
    "v3": (123, 900, 32),
    "v4": (275, 1200, 32),
    "v5e": (197, 819, 16),
    "v5p": (459, 2765, 95),
    "v6e": (918, 1638, 32),
}


def test_every_generation_is_there_and_names_its_source():
    assert list(CHIPS) == list(PUBLISHED)
    assert all(chip.source.endswith(f"/tpu/docs/{name}") for name, chip in CHIPS.items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_devices_of_a_chip_add_up_to_what_is_published(name):
    chip, (teraflops, gigabytes, memory) = CHIPS[name], PUBLISHED[name]
    assert chip.flops * chip.devices_per_chip == teraflops * 1e12
    assert chip.bandwidth * chip.devices_per_chip == gigabytes * 1e9
    held = chip.hbm_bytes * chip.devices_per_chip
    assert 0.93 * memory * 2**30 < held < 1.01 * memory * 2**30


@pytest.mark.parametrize(
    ("name", "full", "devices"),
    [
        ("v5e:2x2", "v5e:2x2", 4),
        ("v5e", "v5e:2x2", 4),
        ("v5e:1x1", "v5e:1x1", 1),
        ("v5e:16x16", "v5e:16x16", 256),
        ("v4:2x2x1", "v4:2x2x1", 4),
        ("v4", "v4:2x2x1", 4),
        ("v3:2x2", "v3:2x2", 8),  # two cores a chip
    ],
)
def test_a_slice_has_a_replica_on_each_device(name, full, devices):
    topology = parse_topology(name)
    assert (topology.name, topology.devices) == (full, devices)
    assert chip_of(name) is topology.chip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5:2x2", "unknown TPU generation 'v5'.*Did you mean 'v5.'"),
        ("v5e:2x2x1", "shape of 2 numbers.*e.g. 'v5e:2x2'"),
        ("v4:2x2", "shape of 3 numbers.*e.g. 'v4:2x2x1'"),
        ("v5e:3x2", "first two are even"),
        ("v5e:0x0", "first two are even"),
        ("v5e:twox2", "e.g. 'v5e:2x2'"),
    ],
)
def test_a_misspelt_slice_is_answered_with_what_there_is(name, message):
    with pytest.raises(ValueError, match=message):
        parse_topology(name)
