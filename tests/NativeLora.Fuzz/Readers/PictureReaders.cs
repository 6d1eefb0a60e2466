using NativeLora.Data.Vision;
using NativeLora.Imaging;
using NativeLora.Tests.Vision;
using SkiaSharp;

namespace NativeLora.Fuzz;

/// <summary>Readers of pictures and of how they are prepared.</summary>
internal static class PictureReaders
{
    // What is let pass of a file of a few KiB takes four bytes a pixel in the decoder and three after it.
    private const long Largest = 7L * (1 << 24);

    public static IEnumerable<FuzzReader> All =>
    [
        Picture("png", "PNG", () => [Make("png", Encode(SKEncodedImageFormat.Png)), Make("png", Png.Make(4, 1, 16, Png.Grey, [[0, 64, 0, 255, 1, 0, 128, 255]])), Make("png", Png.Make(2, 2, 8, Png.Palette, [[0, 1], [1, 0]], [1, 2, 3, 4, 5, 6], [0, 255]))]),
        Picture("jpeg", "JPEG", () => [Make("jpg", Encode(SKEncodedImageFormat.Jpeg))]),
        Picture("webp", "WebP", () => [Make("webp", Encode(SKEncodedImageFormat.Webp)), Make("webp", Encode(SKEncodedImageFormat.Webp, 60))]),
        Picture("bmp", "BMP", () => [Make("bmp", Bmp())]),
        Picture("gif", "GIF", () => [Make("gif", Gif())]),
        FuzzReader.Of("preprocessor", "preprocessor_config.json, processor_config.json", () =>
        [
            FuzzCase.Of("preprocessor_config.json", "{\"image_processor_type\": \"CLIPImageProcessor\", \"do_resize\": true, \"size\": {\"shortest_edge\": 8}, \"do_center_crop\": true, \"crop_size\": {\"height\": 6, \"width\": 6}, \"do_rescale\": true, \"rescale_factor\": 0.00392156862745098, \"do_normalize\": true, \"image_mean\": [0.48, 0.45, 0.4], \"image_std\": [0.26, 0.26, 0.27], \"resample\": 3}"),
            FuzzCase.Of("processor_config.json", "{\"image_processor\": {\"size\": 7, \"crop_size\": 5, \"do_normalize\": false}}"),
            FuzzCase.Of("preprocessor_config.json", "{\"size\": {\"height\": 4, \"width\": 4}, \"do_center_crop\": false}"),
        ], folder =>
        {
            var preprocessing = ClipPreprocessing.FromFolder(folder);
            // Large ones are right, and slow.
            if (preprocessing.Size > 64 || preprocessing.ResizeEdge > 64)
                return;
            try
            {
                preprocessing.Apply(new RgbPicture(3, 2, new byte[18]), new float[3 * preprocessing.Size * preprocessing.Size]);
            }
            catch (InputException e)
            {
                // About the picture, which is not the folder's.
                throw new InputException($"{folder}: {e.Message}", e);
            }
        }) with { Words = ["\"shortest_edge\"", "\"crop_size\"", "4096", "4097", "\"image_std\"", "[0,0,0]", "[1e-300,1,1]", "\"do_pad\"", "\"CLIPImageProcessor\""] },
    ];

    private static FuzzReader Picture(string name, string reads, Func<IReadOnlyList<FuzzCase>> corpus) => FuzzReader.Of(name, reads, corpus, folder =>
    {
        foreach (var path in Directory.EnumerateFiles(folder))
            _ = PictureDecoder.Decode(path).Pixels.Length;
    }) with
    { Allocates = Largest };

    private static FuzzCase Make(string ending, byte[] bytes) => FuzzCase.Of($"picture.{ending}", bytes);

    private static byte[] Encode(SKEncodedImageFormat format, int quality = 100)
    {
        using var bitmap = new SKBitmap(new SKImageInfo(6, 5, SKColorType.Rgba8888, SKAlphaType.Unpremul));
        for (var y = 0; y < 5; y++)
            for (var x = 0; x < 6; x++)
                bitmap.SetPixel(x, y, new SKColor((byte)(40 * x), (byte)(50 * y), (byte)(x * y), (byte)(255 - x)));
        using var data = bitmap.Encode(format, quality);
        return data.ToArray();
    }

    private static byte[] Bmp() =>
    [
        .. "BM"u8, 70, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 24, 0, 0, 0, 0, 0, 16, 0, 0, 0, 19, 11, 0, 0, 19, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 2, 3, 4, 5, 6, 0, 0, 7, 8, 9, 10, 11, 12, 0, 0,
    ];

    private static byte[] Gif()
    {
        byte[] frame = [0x2c, 0, 0, 0, 0, 2, 0, 1, 0, 0, 2, 2, 0x44, 0x0a, 0];
        return [.. "GIF89a"u8, 2, 0, 1, 0, 0x80, 0, 0, 10, 20, 30, 40, 50, 60, .. frame, .. frame, 0x3b];
    }
}
