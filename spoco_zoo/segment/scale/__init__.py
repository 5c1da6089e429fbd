"""At which size and voxel size a network sees an image, and the way back to the image's own."""
