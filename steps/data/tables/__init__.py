"""The url table in every form that it comes in: files of rows, folders of pictures, shards of others."""
