def absolute(config, path):
    """The whole URL of a path, as `url("/users/7")` gives it, for a mail or a feed.

    `app.site` in config.yaml names the site: the `Host` of a request may be anybody's.
    """
    return config.app["site"].rstrip("/") + path
