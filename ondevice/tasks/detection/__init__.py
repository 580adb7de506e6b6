"""Objects in images: annotations in COCO's form, and how well a detector finds them."""
