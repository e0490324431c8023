"""The application factory for in_paste.ini."""


def from_wsgi(global_config, **settings):
    from wsgi import application

    return application
