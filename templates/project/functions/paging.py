PER_PAGE = 25


def page_of(request, db, query):
    """The rows of the page that `?page=` names, and what `component("pagination")` is to show."""
    page = max(1, request.args.get("page", 1, type=int))
    # One row more than the page has tells whether there is a next page.
    query = query.offset((page - 1) * PER_PAGE).limit(PER_PAGE + 1)
    rows = db.execute(query).all()
    return rows[:PER_PAGE], {"page": page, "more": len(rows) > PER_PAGE}
