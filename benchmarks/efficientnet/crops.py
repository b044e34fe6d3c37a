"""Natural pictures, 224×224, without labels: crops of the pictures that Debian's opencv-doc and PyPI's scikit-image ship.

A scene (all pictures of one subject) goes to one part as a whole: a third each to calibration, validation and test.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

OPENCV = Path("/usr/share/doc/opencv-doc")
PER_SCENE = 14

DATA = """aero1.jpg aero3.jpg|aloeL.jpg|apple.jpg orange.jpg|baboon.jpg|board.jpg|building.jpg|butterfly.jpg|chicky_512.png|fruits.jpg
graf1.png graf3.png|home.jpg|left.jpg right.jpg|leuvenA.jpg|licenseplate_motion.jpg|messi5.jpg|rubberwhale1.png|squirrel_cls.jpg
starry_night.jpg|stuff.jpg"""
HTML = """plant.jpg|face_swapped.jpg 227943776_1.jpg|230501201_1.jpg|Background_Subtraction_Tutorial_frame.jpg
Bounding_Rects_Circles_Source_Image.jpg|Cascade_Classifier_Tutorial_Result_Haar.jpg|HDRtoneMapping_candleSample.jpg|memorial.png
Harris_Detector_Original_Image.jpg|Histogram_Calculation_Original_Image.jpg|Laplace_Operator_Tutorial_Original_Image.jpg
Morphology_1_Tutorial_Original_Image.jpg|Template_Matching_Mask_Example.jpg Template_Matching_Template_Theory_Sliding.jpg
Threshold_inRange_Tutorial_Result_input.jpeg|Warp_Affine_Tutorial_Original_Image.jpg|ambush_5_left.jpg|astra_color.jpg|bicubicOutput.jpg
boat.jpg|bus_det.jpg|cat_det.jpg|pexels_double_decker_bus.jpg|fusion_mertens.jpg|handSrc.jpg|homography_pose_chessboard_corners.jpg
motion_original.jpg|person_multi_det.jpg|sample.jpg|space_shuttle.jpg|studentsSample_input.jpg|yolo.jpg|retina_TreeHdr_small.jpg
stereo_undistort.jpg"""
TEXT = "|".join(f"scenetext0{i}.jpg" for i in range(1, 7))
SKIMAGE = "coffee.png|astronaut.png|motorcycle_left.png|hubble_deep_field.jpg|retina.jpg|ihc.png|rocket.jpg|chelsea.png"


def scenes() -> list[list[Path]]:
    """Scenes whose pictures are all there."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None or not OPENCV.is_dir():
        raise SystemExit("needs Debian's opencv-doc (apt-get install opencv-doc) and pip install scikit-image")
    places = {
        OPENCV / "examples" / "data": DATA,
        OPENCV / "opencv4" / "html": HTML,
        OPENCV / "examples" / "text": TEXT,
        Path(found.origin).parent / "data": SKIMAGE,
    }
    every = [[place / name for name in scene.split()] for place, text in places.items() for scene in text.replace("\n", "|").split("|")]
    return [scene for scene in every if all(path.exists() for path in scene)]


def crops(seed: int = 0) -> dict[str, np.ndarray]:
    """ "x_train", "x_val", "x_test": (n, 224, 224, 3) uint8."""
    generator = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {"x_train": [], "x_val": [], "x_test": []}
    every = scenes()
    for place, chosen in enumerate(generator.permutation(len(every))):
        part = parts[list(parts)[place % 3]]
        for i in range(PER_SCENE):
            picture = Image.open(every[chosen][i % len(every[chosen])]).convert("RGB")
            short = min(picture.size)
            side = max(round(short * generator.uniform(0.45, 1.0)), min(short, 160))
            left, top = (int(generator.integers(0, whole - side + 1)) for whole in picture.size)
            crop = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
            if generator.random() < 0.5:
                crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            part.append(np.asarray(crop))
    return {name: np.stack(part) for name, part in parts.items()}
