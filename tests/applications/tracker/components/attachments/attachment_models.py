from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base
from models.issue_models import Issue

MAX_SIZE = 5_000_000  # bytes


class Attachment(Base):
    __tablename__ = "attachments"

    id: Mapped[int] = mapped_column(primary_key=True)
    issue_id: Mapped[int] = mapped_column(ForeignKey("issues.id"), index=True)
    filename: Mapped[str] = mapped_column(String(200))
    # Loaded on first access only. The length matters on MySQL, where a plain BLOB holds 64 kB.
    content: Mapped[bytes] = mapped_column(LargeBinary(MAX_SIZE), deferred=True)

    issue: Mapped[Issue] = relationship()
