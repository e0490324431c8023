def absolute(config, path):
    """Return the absolute URL of a path such as `url("/users/7")`, for emails and feeds.

    It uses `app.site` from config.yaml, because clients can forge the `Host` header.
    """
    return config.app["site"].rstrip("/") + path
