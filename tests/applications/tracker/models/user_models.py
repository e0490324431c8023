from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    is_admin: Mapped[bool] = mapped_column(default=False)
    # Digests, see functions/digests.py. They allow neither signing in nor using the API.
    password: Mapped[str] = mapped_column(String(200))
    token: Mapped[str | None] = mapped_column(String(64), unique=True)
