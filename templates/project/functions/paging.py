PER_PAGE = 25


def page_of(request, db, query):
    """Return the rows of page `?page=`, and the props of `component("pagination")`."""
    page = max(1, request.args.get("page", 1, type=int))
    # One row more than fits shows whether there is a next page.
    query = query.offset((page - 1) * PER_PAGE).limit(PER_PAGE + 1)
    rows = db.execute(query).all()
    return rows[:PER_PAGE], {"page": page, "more": len(rows) > PER_PAGE}
