"""The factory that in_paste.ini names."""


def from_wsgi(global_config, **settings):
    from wsgi import application

    return application
