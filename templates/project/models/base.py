from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The base of the models in this folder, which can refer to each other by name."""
