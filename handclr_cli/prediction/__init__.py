"""From footage or crops to 3D hands: tables, films and pages of them."""
