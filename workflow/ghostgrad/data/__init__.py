"""Data sets: reading, checking, manifests, and image transforms.

The data rule makes or checks a data set once (`make.py`) and writes its manifest,
results/data/<name>.json: counts, class names and a checksum, but no path, so that data that move
rerun nothing. Every run loads the data set that its manifest describes, and refuses another one.

    images           `Images`, labelled images in memory or on disk
    transforms       crops, resizing, standardization
    decoding         from image files to tensors, and which files are damaged
    folders          image files in the layout of torchvision's ImageFolder
    builtin          scikit-learn's digits and photographs
    cifar10          CIFAR-10, from the files of its archive
    vgg19_bn         torchvision's published weights of VGG19-BN
    coco             images with objects in COCO's format
    coco_format      reading and checking annotation files
    coco_evaluation  average precision
    digit_scenes     scenes made of the digits, in COCO's format
    manifests        what all forms of data sets share: paths, counts, manifests
    image_sets       making and loading labelled images
    scene_sets       making and loading images with objects
    make             makes or checks any data set, by its name
    resized          a smaller copy of a folder of images
    imagenet         from ImageNet's archives to folders

The sizes, means and deviations of all data sets are in `ghostgrad/registry/datasets.py`.
"""
