# A build context that is yet to be packed, and the way into it: what it says of owners and modes
# counts, its ignore file does not.
mkdir -p "$CASE_DIR/work/sub"
cd "$CASE_DIR/work"
printf 'FROM scratch\nCOPY . /all/\nCOPY --chown=7:8 sub /sub/\n' > Dockerfile
echo owned > owned
chown 1000:1001 owned
chmod 640 owned
echo owned > .dockerignore
echo deep > sub/deep
ln -s deep sub/link
find . -exec touch -h -d @1000000000 {} +
