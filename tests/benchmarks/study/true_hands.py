"""The same crops with the true keypoints of their hands in place of those found: what pairs and
soft targets would be if nothing were wrong with either.

    python tests/benchmarks/study/true_hands.py HANDS TRUTH OUT

HANDS and OUT are folders of shards, TRUTH is that of `synth footage`. The 2D keypoints are the true
ones in the crop, the world landmarks the true joints from the wrist; crops without a true hand are
left out.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from pairs_crops import CROP_SIDE, seen, true_hand

from handclr_cli.contract.fields import KEYPOINTS_2D, WORLD_3D, encode_array
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput, read_samples
from handclr_cli.hand.joints import WRIST
from handclr_cli.similarity.truth import Truth


def main() -> None:
    hands, truth, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    known = Truth(ShardIndex(expand_inputs([str(truth)])), str(truth))
    for shard in sorted(hands.glob("*.tar")):
        with ShardOutput(str(out / shard.name), provenance("study", {}, [str(shard)])) as output:
            for sample in read_samples([str(shard)]):
                told = with_truth(sample, known)
                if told:
                    output.write(told)


def with_truth(sample: Sample, truth: Truth) -> Sample | None:
    """A crop with the keypoints of the hand that it shows, as it shows it."""
    hand = true_hand(sample, truth)
    if hand is None:
        return None
    points, joints = seen(hand, sample)
    members = {
        **sample.members,
        KEYPOINTS_2D.suffix: encode_array(KEYPOINTS_2D, points * (sample.side / CROP_SIDE)),
        WORLD_3D.suffix: encode_array(WORLD_3D, joints - joints[WRIST]),
    }
    return replace(sample, members=members)


if __name__ == "__main__":
    main()
