# An image with one file and some config: tag v1 of the layout at $layout.
layout="$CASE_DIR/layout"
umoci init --layout "$layout"
umoci new --image "$layout:v1"
umoci unpack --image "$layout:v1" "$CASE_DIR/bundle"
echo inside > "$CASE_DIR/bundle/rootfs/inside"
chown 5:6 "$CASE_DIR/bundle/rootfs/inside"
touch -d @1000000000 "$CASE_DIR/bundle/rootfs/inside"
umoci repack --image "$layout:v1" --history.created 2001-09-09T01:46:40Z "$CASE_DIR/bundle"
umoci config --image "$layout:v1" --history.created 2001-09-09T01:46:40Z --created 2001-09-09T01:46:40Z \
    --config.env FOO=bar --config.label l=1 --config.workingdir /w
