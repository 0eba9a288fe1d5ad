# Repositories of cases: the same commits on every machine.

# commits_by EMAIL DATE: says whose the commits are that follow, and of which time.
commits_by() {
    export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL="$1" GIT_AUTHOR_DATE="$2"
    export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL="$1" GIT_COMMITTER_DATE="$2"
}

# begin_repository FOLDER: makes a repository without commits and goes there.
begin_repository() {
    mkdir -p "$1"
    cd "$1"
    git init -q -b main
}

# commit_all MESSAGE: commits what there is.
commit_all() {
    git add -A
    git commit -q -m "$1"
}

# serve_bare: serves the commits of this repository as $HTTP/repo.git.
serve_bare() {
    git clone -q --bare . "$CASE_DIR/http/repo.git"
    git -C "$CASE_DIR/http/repo.git" update-server-info
}

# serve_tags: serves $HTTP/r/.git with the branches main and side, the tag v1 with an object of its
# own and the tag light without.
serve_tags() {
    commits_by a@a.example 2001-02-03T04:05:06Z
    begin_repository "$CASE_DIR/http/r"
    mkdir -p d/e
    echo one > f
    echo inner > d/in
    echo deep > d/e/deep
    ln -s f link
    echo '#!/bin/sh' > tool
    chmod 700 tool
    commit_all one
    git tag -a v1 -m v1
    git tag light
    echo two > f
    commit_all two
    git checkout -q -b side
    echo side > f
    commit_all side
    git checkout -q main
    git update-server-info
}

# serve_folder: serves $HTTP/repo.git, whose folder app is a build context with an ignore file,
# which says nothing there; the tag v1 is the commit before the last.
serve_folder() {
    commits_by a@b '1000000000 +0000'
    begin_repository "$CASE_DIR/work"
    mkdir app
    printf 'FROM scratch\nCOPY . /\n' > app/Dockerfile
    echo first > app/file
    echo file > app/.dockerignore
    echo outside > outside
    ln -s file app/link
    echo run > app/run
    chmod 755 app/run
    commit_all first
    git tag v1
    echo second > app/file
    commit_all second
    serve_bare
}

# serve_source: serves $HTTP/repo.git, a commit of the second 1200000101.
serve_source() {
    commits_by a@b '1200000101 +0000'
    begin_repository "$CASE_DIR/work"
    echo source > main.c
    commit_all first
    serve_bare
}
