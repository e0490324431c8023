def test_the_first_page_has_a_heading(client):
    assert client.get("/").html.h1


def test_an_unknown_page_is_not_found(client):
    client.get("/nowhere", status=404)
