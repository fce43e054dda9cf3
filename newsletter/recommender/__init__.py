"""What a reader would choose: arrays in, arrays out. No Django."""
