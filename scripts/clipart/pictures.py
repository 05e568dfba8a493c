"""A drawing's picture: cropped to its ink, on a white square."""

from PIL import Image, ImageChops

# Part of the square's side that is left white on each side of the drawing.
MARGIN = 1 / 16

# A channel this far from white is ink.
FAINT = 8


def square(path, side):
    """The drawing as `side` x `side` RGB pixels on white, or `None` if nothing of it is seen there.

    What is not white is cropped, scaled so that its longer side fills the square but for the margin, and laid in the
    middle: many drawings are a corner of a page.
    """
    Image.MAX_IMAGE_PIXELS = None  # The caller has looked at the header.
    picture = Image.open(path).convert("RGBA")
    ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    picture = Image.alpha_composite(ground, picture).convert("RGB")
    ink = ImageChops.difference(picture, Image.new("RGB", picture.size, (255, 255, 255)))
    red, green, blue = ink.split()
    ink = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    box = ink.point(lambda value: 255 if value > FAINT else 0).getbbox()
    if box is None:
        return None
    picture = picture.crop(box)
    longest = max(picture.size)
    room = side - 2 * round(side * MARGIN)
    size = [max(1, round(length * room / longest)) for length in picture.size]
    picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = Image.new("RGB", (side, side), (255, 255, 255))
    out.paste(picture, [(side - length) // 2 for length in size])
    return out
