"""Writes small inputs such as users have; each folder gets a README. Usage: python make.py OUT (needs numpy and pillow)."""

import json
import shutil
import sys
from pathlib import Path
import numpy as np
from PIL import Image

C = Path(sys.argv[1])
COL = {1: (220, 40, 40), 2: (40, 60, 220)}


def pic(path, boxes, size=(160, 120), seed=0, **kw):
    rng = np.random.default_rng(seed)
    a = rng.integers(90, 120, (size[1], size[0], 3)).astype(np.uint8)
    for c, (x, y, w, h) in boxes:
        a[int(y) : int(y + h), int(x) : int(x + w)] = COL.get(c, (40, 200, 40))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(a).save(path, **kw)


def scene(i):
    rng = np.random.default_rng(1000 + i)
    n = 1 + i % 3
    out = []
    for k in range(n):
        w, h = int(rng.integers(24, 44)), int(rng.integers(24, 44))
        x, y = 5 + 50 * k, int(rng.integers(5, 70))
        out.append((1 + (i + k) % 2, (x, y, w, h)))
    return out


def coco(ids, start=1):
    images, anns = [], []
    n = start
    for i in ids:
        images.append({"id": i, "file_name": f"img{i:03d}.jpg", "width": 160, "height": 120})
        for c, b in scene(i):
            anns.append(
                {"id": n, "image_id": i, "category_id": c, "bbox": list(b), "area": b[2] * b[3], "iscrowd": 0, "segmentation": []}
            )
            n += 1
    return {
        "images": images,
        "annotations": anns,
        "categories": [{"id": 1, "name": "red", "supercategory": "none"}, {"id": 2, "name": "blue", "supercategory": "none"}],
    }


def new(name, readme):
    d = C / name
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir(parents=True)
    (d / "README").write_text(readme + "\n")
    return d


def images(d, ids, sub="images"):
    for i in ids:
        pic(d / sub / f"img{i:03d}.jpg", scene(i), seed=i, quality=92)


def base(name, readme, split=True, n=24, nv=8):
    d = new(name, readme)
    r = d / "set"
    r.mkdir()
    images(r, range(1, n + nv + 1))
    if split:
        return d, r, coco(range(1, n + 1)), coco(range(n + 1, n + nv + 1), start=1000)
    return d, r, coco(range(1, n + nv + 1)), None


def dump(p, c, enc="utf-8"):
    p.write_text(json.dumps(c), encoding=enc)


def yolo_lines(i, size=(160, 120)):
    return [(c - 1, (x + w / 2) / size[0], (y + h / 2) / size[1], w / size[0], h / size[1]) for c, (x, y, w, h) in scene(i)]


def yolo(r, ids, img="images/train", lab="labels/train", fmt=lambda l: " ".join(f"{v:.6g}" for v in l)):
    images(r, ids, img)
    (r / lab).mkdir(parents=True, exist_ok=True)
    for i in ids:
        (r / lab / f"img{i:03d}.txt").write_text("".join(fmt(l) + "\n" for l in yolo_lines(i)))


# ---- 00 plain
d, r, t, v = base("00-plain", "control: 24 + 8 images, COCO, nothing wrong")
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)

# ---- 01 own data under data/<profile>
d, r, t, v = base(
    "01-data-in-data", "a dataset that the user put at <project>/data/cells, adopted with --name cells (copy set/ there)"
)
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)

# ---- 02 yolo pose
d = new(
    "02-yolo-pose", "YOLO pose labels, kpt_shape [3, 2]: class cx cy w h x1 y1 x2 y2 x3 y3; the third point is unlabelled, 0 0"
)
r = d / "set"


def pose(l):
    c, cx, cy, w, h = l
    return " ".join(f"{x:.6g}" for x in (c, cx, cy, w, h, cx - w / 4, cy, cx + w / 4, cy, 0, 0))


yolo(r, range(1, 25), fmt=pose)
yolo(r, range(25, 33), "images/val", "labels/val", fmt=pose)
(r / "data.yaml").write_text(
    "path: ../datasets/x\ntrain: images/train\nval: images/val\nkpt_shape: [3, 2]\nnames:\n  0: red\n  1: blue\n"
)

# ---- 03 yolo track: conf + id
d = new("03-yolo-conf-id", "YOLO labels as `yolo track save_txt save_conf` writes them: class cx cy w h confidence track-id")
r = d / "set"
n = [0]


def conf(l):
    n[0] += 1
    return " ".join(f"{x:.6g}" for x in (*l, 0.9, n[0] % 4 + 1))


yolo(r, range(1, 25), fmt=conf)
yolo(r, range(25, 33), "images/val", "labels/val", fmt=conf)
(r / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [red, blue]\n")
# ---- 04 yolo list of folders
d = new("04-yolo-list", "data.yaml with train: [images/train, images/extra]; 12 images in each")
r = d / "set"
yolo(r, range(1, 13))
yolo(r, range(13, 25), "images/extra", "labels/extra")
yolo(r, range(25, 33), "images/val", "labels/val")
(r / "data.yaml").write_text("train:\n  - images/train\n  - images/extra\nval: images/val\nnames: [red, blue]\n")
d = new(
    "04b-yolo-txt",
    "data.yaml with train: train.txt, val: val.txt, which list 8 and 4 of the 24 images in images/train; the rest are not labelled yet",
)
r = d / "set"
yolo(r, range(1, 25))
for i in range(13, 25):
    (r / f"labels/train/img{i:03d}.txt").unlink()
(r / "train.txt").write_text("".join(f"./images/train/img{i:03d}.jpg\n" for i in range(1, 9)))
(r / "val.txt").write_text("".join(f"./images/train/img{i:03d}.jpg\n" for i in range(9, 13)))
(r / "data.yaml").write_text("path: .\ntrain: train.txt\nval: val.txt\nnames: [red, blue]\n")
# ---- 05 str image_id in annotations
d, r, t, _ = base(
    "05-str-image-id", "COCO, one file without val: images have ids as numbers, annotations image_id as text ('7')", split=False
)
for a in t["annotations"]:
    a["image_id"] = str(a["image_id"])
dump(r / "annotations.json", t)
# ---- 06
d, r, t, v = base("06-no-size", "COCO whose images have no width and height")
for c in (t, v):
    for i in c["images"]:
        del i["width"], i["height"]
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)
# ---- 07 BOM
d, r, t, v = base("07-bom", "COCO JSON with a UTF-8 byte order mark, as Windows tools write it")
dump(r / "instances_train.json", t, "utf-8-sig")
dump(r / "instances_val.json", v, "utf-8-sig")
# ---- 08 AppleDouble
AD = bytes.fromhex("00051607000200004d6163204f53205820202020202020200002000000090000003200000e") + bytes(80)
d, r, t, v = base(
    "08-appledouble-coco",
    "COCO folder that went through a Mac: ._instances_train.json and images/._img001.jpg beside the real files",
)
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)
(r / "._instances_train.json").write_bytes(AD)
(r / "images/._img001.jpg").write_bytes(AD)


# ---- VOC
def voc(
    r,
    ids,
    fname=lambda i: f"img{i:03d}.jpg",
    stem=lambda i: f"img{i:03d}",
    xml=None,
    size=True,
    obj=None,
    bom=False,
    depth="<depth>3</depth>",
):
    (r / "Annotations").mkdir(parents=True, exist_ok=True)
    for i in ids:
        pic(r / "JPEGImages" / f"{stem(i)}.jpg", scene(i), seed=i, quality=92)
        o = "".join(
            (
                obj
                or (
                    lambda c, x, y, w, h: (
                        f"<object><name>{'red' if c == 1 else 'blue'}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                    )
                )
            )(c, *b)
            for c, b in scene(i)
        )
        s = f"<size><width>{160 if size else 0}</width><height>{120 if size else 0}</height>{depth}</size>"
        (r / "Annotations" / f"{(xml or stem)(i)}.xml").write_text(
            f"<annotation><folder>x</folder><filename>{fname(i)}</filename>{s}<segmented>0</segmented>{o}</annotation>",
            encoding="utf-8-sig" if bom else "utf-8",
        )


d = new("09-voc-no-extension", "Pascal VOC of older labelImg: <filename>img001</filename> without .jpg")
voc(d / "set", range(1, 33), fname=lambda i: f"img{i:03d}")
d = new("09c-voc-spaces", "Pascal VOC with names such as `my photo 1`, ImageSets/Main/train.txt and val.txt")
r = d / "set"
st = lambda i: f"my photo {i}"
voc(r, range(1, 33), fname=lambda i: st(i) + ".jpg", stem=st)
(r / "ImageSets/Main").mkdir(parents=True)
(r / "ImageSets/Main/train.txt").write_text("".join(st(i) + "\n" for i in range(1, 25)))
(r / "ImageSets/Main/val.txt").write_text("".join(st(i) + "\n" for i in range(25, 33)))
d = new("09e-voc-trainval-test", "Pascal VOC with ImageSets/Main/trainval.txt (24) and test.txt (8), as VOC2007 itself has it")
r = d / "set"
voc(r, range(1, 33))
(r / "ImageSets/Main").mkdir(parents=True)
(r / "ImageSets/Main/trainval.txt").write_text("".join(f"img{i:03d}\n" for i in range(1, 25)))
(r / "ImageSets/Main/test.txt").write_text("".join(f"img{i:03d}\n" for i in range(25, 33)))
# ---- 10 all crowds
d, r, t, v = base("10-all-crowds", "COCO whose exporter set iscrowd 1 everywhere (masks as run lengths)")
for c in (t, v):
    for a in c["annotations"]:
        a["iscrowd"] = 1
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)
# ---- 11 merged, colliding image ids
d, r, t, v = base(
    "11-merged-ids", "two COCO exports put into one without renumbering images: ids 1..12 twice, annotation ids unique"
)
for i in t["images"][12:]:
    i["id"] -= 12
for a in t["annotations"]:
    if a["image_id"] > 12:
        a["image_id"] -= 12
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)

# ---- 12 two categories of one name
d, r, t, v = base("12-one-name-twice", "COCO with two categories of the same name: ids 1 and 2 both `cell` (merged exports)")
for c in (t, v):
    for k in c["categories"]:
        k["name"] = "cell"
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)

# ---- 13 12 bit
d, r, t, v = base("13-twelve-bits", "16-bit TIFFs that hold 12 bits (0..4095), as of microscopes and X-ray")
for p in list((r / "images").glob("*.jpg")):
    g = np.asarray(Image.open(p).convert("L")).astype(np.uint16) * 16
    Image.fromarray(g).save(p.with_suffix(".tif"))
    p.unlink()
for c in (t, v):
    for i in c["images"]:
        i["file_name"] = i["file_name"].replace(".jpg", ".tif")
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)
# ---- 14 area
d, r, t, v = base("14b-zero-area", "COCO with `area` 0 everywhere")
for c in (t, v):
    for a in c["annotations"]:
        a["area"] = 0
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)

# ---- 15 broken yolo, lenient
d = new("15-yolo-broken-image", "YOLO with one image of 0 bytes; check.mode lenient is meant to leave it out")
r = d / "set"
yolo(r, range(1, 25))
yolo(r, range(25, 33), "images/val", "labels/val")
(r / "images/train/img003.jpg").write_bytes(b"")
(r / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [red, blue]\n")
# ---- 17 class name
d, r, t, v = base("17-unused-name", "a class whose name begins with `unused `: `unused space` beside `used space`")
for c in (t, v):
    c["categories"][0]["name"] = "unused space"
    c["categories"][1]["name"] = "used space"
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)
# ---- 18 tiny
d, r, t, v = base("18-three-images", "3 + 1 images")
keep = {1, 2, 3}
t = coco([1, 2, 3])
v = coco([25], start=100)
dump(r / "instances_train.json", t)
dump(r / "instances_val.json", v)
for p in (r / "images").iterdir():
    if p.name not in {i["file_name"] for i in t["images"] + v["images"]}:
        p.unlink()
