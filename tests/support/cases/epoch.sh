# An archive of a build context, $HTTP/context.tar, whose newest file is of the second 1200000302.
mkdir "$CASE_DIR/work"
cd "$CASE_DIR/work"
printf 'FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo -n "$SOURCE_DATE_EPOCH" > /epoch\n' > Dockerfile
echo bar > foo
touch -d @1200000301 Dockerfile
touch -d @1200000302 foo
tar -cf "$CASE_DIR/http/context.tar" Dockerfile foo
