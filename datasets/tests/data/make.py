"""Writes the MAT-files of this folder: pip install h5py hdf5storage scipy (written with h5py 3.16, HDF5 2.0, hdf5storage 0.2.2).

All hold the same arrays, I_tr (5 x 3 doubles), T_tr (5 x 4 singles) and L_tr (5 x 2 bytes):
  v5, v5-packed       scipy.io.savemat, without and with compression
  v73                 superblock 0 behind MATLAB's user block of 512 bytes, not chunked, as MATLAB writes small arrays; it holds text, a
                      group like that of a sparse matrix and strings besides
  v73-deflate         superblock 0, chunks of 2 x 2, deflate: as MATLAB writes large arrays
  v73-superblock2     superblock 2, chunks, shuffle and deflate
  v73-latest          superblock 3 and its chunk indices without a user block, shuffle, deflate and checksums
  v73-hdf5storage     hdf5storage.savemat(format="7.3")
bomb declares 40 GB of zeros in a kilobyte.
"""
import os
import h5py, hdf5storage, numpy as np, scipy.io

here = os.path.dirname(os.path.abspath(__file__)) + "/"
arrays = {
    "I_tr": np.arange(15, dtype=np.float64).reshape(5, 3) / 4 - 1,
    "T_tr": (np.arange(20).reshape(5, 4) % 3).astype(np.float32),
    "L_tr": np.array([[1, 0], [0, 1], [0, 0], [1, 1], [0, 0]], dtype=np.uint8),
}


def write(name, libver, block, extras=False, **how):
    path = here + name + ".mat"
    with h5py.File(path, "w", libver=libver, userblock_size=block) as file:
        for key, array in arrays.items():
            data = file.create_dataset(key, data=np.ascontiguousarray(array.T), **how)
            classes = {"float64": "double", "float32": "single", "uint8": "uint8"}
            data.attrs["MATLAB_class"] = np.bytes_(classes[array.dtype.name])
        if extras:
            text = np.frombuffer("wiki".encode("utf-16-le"), dtype=np.uint16).reshape(4, 1)
            file.create_dataset("title", data=text).attrs["MATLAB_class"] = np.bytes_("char")
            file.create_dataset("words", data=np.array([b"a", b"b"]))
            file.create_group("S").attrs["MATLAB_sparse"] = np.uint64(5)
            file.create_dataset("flags", data=np.array([[True, False, True]]))
    if block:
        head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124, b" ") + b"\x00\x02IM"
        with open(path, "r+b") as file:
            file.write(head)


packed = dict(chunks=(2, 2), compression="gzip")
write("v73", "earliest", 512, extras=True)
write("v73-deflate", "earliest", 512, **packed)
write("v73-superblock2", ("v108", "v108"), 512, shuffle=True, **packed)
write("v73-latest", "latest", 0, shuffle=True, fletcher32=True, **packed)
hdf5storage.savemat(here + "v73-hdf5storage.mat", arrays, format="7.3", oned_as="column", store_python_metadata=False)
scipy.io.savemat(here + "v5.mat", arrays)
scipy.io.savemat(here + "v5-packed.mat", arrays, do_compression=True)
with h5py.File(here + "bomb.mat", "w", libver="earliest") as file:
    file.create_dataset("I_tr", shape=(100_000, 100_000), chunks=(1000, 1000), dtype="f4", compression="gzip")
