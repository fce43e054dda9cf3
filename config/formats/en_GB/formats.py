"""How times read in the admin: by 24 hours. Its footer says that they are UTC."""

DATETIME_FORMAT = "j M Y, H:i"
TIME_FORMAT = "H:i"
