"""The files of an issue. The guard in registry.py restricts them to members."""

from sqlalchemy import select

from components.attachments.attachment_models import Attachment


def load_template_context(request, session, db, *, issue_id):
    query = select(Attachment).where(Attachment.issue_id == issue_id).order_by(Attachment.id)
    return {"attachments": db.scalars(query).all()}


def action_upload(request, session, db, *, issue_id):
    for upload in request.files.getlist("file"):
        db.add(
            Attachment(
                issue_id=issue_id,
                filename=upload.filename[-200:],
                content=upload.file.read(),
            )
        )
    db.commit()
    return {"_redirect": request.path_info}
