"""From images and object masks to a model: ``spoco_zoo.train(images, labels, out)``."""

from spoco_zoo.verbs import make_verb

make_verb(__name__)
