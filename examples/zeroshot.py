"""Which of your own labels fits a photo, by MobileCLIP (pip install 'ondevice[clip]'):

    python examples/zeroshot.py photo.jpg cat dog "hot dog" [--model FOLDER]

The shares add up to 100 % whatever the photo shows; the cosines tell whether any label fits.
"""

import argparse

import ondevice

parser = argparse.ArgumentParser(description="Which of your own labels fits a photo.")
parser.add_argument("photo")
parser.add_argument("labels", nargs="+", type=str.strip)
parser.add_argument("--model", default="mobileclip_s0", help="model name or saved folder")
args = parser.parse_args()

clip = ondevice.load_clip(args.model)
(predictions,) = clip.zero_shot(args.photo, args.labels, top_k=len(args.labels))
(cosines,) = (clip.encode_image(args.photo) @ clip.classifier(args.labels).T).tolist()
cosine_of = dict(zip(args.labels, cosines, strict=True))
for p in predictions:
    print(f"{p.score:7.2%}  cosine {cosine_of[p.label]:6.3f}  {p.label}")
