"""What a look for hands costs, and what its two networks cost alone, in every engine installed.

    python tests/benchmarks/networks.py images/*.jpg

Processor time of one thread, medians. First HandLandmarker.detect on square images, by how many
hands it finds (a blurred noise for none), and by the size of the image. Then the palm network
(192 px) and the landmark network (224 px), one image at a time and a batch of six where the engine
takes one: OpenCV, and where they are installed LiteRT (ai-edge-litert) and OpenVINO, which handclr
does not need. `apart` is the largest difference from the first engine's output, over its largest
value.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from extraction import detector

NETWORKS = {"hand_detector.tflite": 192, "hand_landmarks_detector.tflite": 224}
BATCH = 6
SIDES = (192, 384, 640, 1080, 1920)
Run = Callable[[np.ndarray], list[np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--times", type=int, default=40)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    looks(options.images, options.times)
    with tempfile.TemporaryDirectory() as folder:
        networks(Path(folder), options.times)


def looks(paths: list[Path], times: int) -> None:
    """What a look costs by hands found and by size."""
    from mediapipe import Image, ImageFormat

    noise = np.random.default_rng(0).integers(0, 255, (640, 640, 3), np.uint8)
    nothing = cv2.GaussianBlur(noise, (0, 0), 9)
    by_hands = defaultdict(list)
    with detector() as landmarker:

        def look(image: np.ndarray) -> int:
            return len(landmarker.detect(Image(ImageFormat.SRGB, image)).hand_landmarks)

        for _ in range(times):
            look(nothing)
        for image in (nothing, *map(square, paths)):
            spent = milliseconds(partial(look, image), max(times // 8, 3))
            by_hands[look(image)].append(spent)
        for hands, all_spent in sorted(by_hands.items()):
            print(f"a look with {hands} hands: {median(all_spent):.1f} ms, {len(all_spent)} images")
        for side in SIDES:
            spent = milliseconds(partial(look, cv2.resize(nothing, (side, side))), times)
            print(f"a look at {side} px, no hand: {spent:.1f} ms")


def square(path: Path) -> np.ndarray:
    """An image with a black border that makes it a square, RGB."""
    image = cv2.imread(str(path))[:, :, ::-1]
    height, width = image.shape[:2]
    padded = np.zeros((max(height, width),) * 2 + (3,), np.uint8)
    padded[:height, :width] = image
    return padded


def networks(folder: Path, times: int) -> None:
    """What the networks cost in each engine, and how far their outputs are apart."""
    from handclr_cli.footage.model_file import model_file

    with zipfile.ZipFile(model_file(None, print)) as parts:
        parts.extractall(folder)
    for name, side in NETWORKS.items():
        images = np.random.default_rng(0).random((BATCH, side, side, 3), np.float32)
        first: list[np.ndarray] = []
        for engine, make in ENGINES.items():
            for count in (1,) if engine == "OpenCV" else (1, BATCH):
                try:
                    run = make(folder / name, images[:count].shape)
                except ImportError:
                    continue
                spent = milliseconds(partial(run, images[:count]), times)
                told = f"{name}, {engine}, {count} at once: {spent / count:.1f} ms each"
                if count == 1:
                    found = run(images[:1])
                    first = first or found
                    told += f", apart {max(differences(first, found)):.1e}"
                print(told, flush=True)


def differences(first: list[np.ndarray], second: list[np.ndarray]) -> Iterator[float]:
    """How far outputs of one shape are apart, as a share; the order differs between engines."""
    for one in first:
        alike = [other for other in second if other.shape == one.shape]
        yield min(float(np.abs(one - other).max() / np.abs(one).max()) for other in alike)


def litert(path: Path, shape: tuple[int, ...]) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    given = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(given, shape)
    interpreter.allocate_tensors()
    wanted = [detail["index"] for detail in interpreter.get_output_details()]

    def run(images: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(given, images)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in wanted]

    return run


def openvino(path: Path, shape: tuple[int, ...]) -> Run:
    from openvino import Core

    model = Core().read_model(str(path))
    model.reshape(shape)
    how = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = Core().compile_model(model, "CPU", how)
    return lambda images: list(compiled(images).values())


def opencv(path: Path, shape: tuple[int, ...]) -> Run:
    network = cv2.dnn.readNetFromTFLite(str(path), cv2.dnn.ENGINE_CLASSIC)
    names = network.getUnconnectedOutLayersNames()

    def run(images: np.ndarray) -> list[np.ndarray]:
        network.setInput(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return list(network.forward(names))

    return run


def milliseconds(work: Callable[[], object], times: int) -> float:
    spent = []
    for _ in range(times + 2):
        begin = time.process_time()
        work()
        spent.append(time.process_time() - begin)
    return 1000 * median(spent[2:])


ENGINES = {"LiteRT": litert, "OpenVINO": openvino, "OpenCV": opencv}


if __name__ == "__main__":
    main()
