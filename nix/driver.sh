# Find the NVIDIA driver's libraries: NixOS has a folder for them, other hosts keep them among all their libraries.
driver=/run/opengl-driver/lib
if [ ! -d "$driver" ] && ls /run/host-libraries/libcuda.so.* >/dev/null 2>&1; then
  driver=$(mktemp -d)
  ln -s /run/host-libraries/libcuda.so* /run/host-libraries/libnvidia-* "$driver"
fi
export LD_LIBRARY_PATH="$driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" TRITON_LIBCUDA_PATH="$driver"
