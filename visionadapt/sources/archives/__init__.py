"""Archives of images, local or in object storage: their members, read at their places without unpacking anything."""
