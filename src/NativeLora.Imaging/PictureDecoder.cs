using NativeLora.Data.Vision;
using SkiaSharp;

namespace NativeLora.Imaging;

/// <summary>
/// Decodes PNG, JPEG, WebP, BMP and GIF (the first frame) to RGB bytes as PIL's <c>convert("RGB")</c> gives them: alpha is
/// dropped, not blended; orientation tags and colour profiles are passed over.
/// </summary>
public static class PictureDecoder
{
    /// <summary>More pixels than this are not decoded. It is where PIL warns of a decompression bomb.</summary>
    public const int MostPixels = 89_478_485;

    private const long MostBytes = 256L << 20;

    // A plane of one colour packs to a pixel of some bits in a thousandth of a byte; what claims more is made to fill memory. Small ones may.
    private const int MostPixelsPerByte = 10_000;
    private const int SmallPicture = 1 << 24;

    /// <summary>Turns a decoded row into RGB.</summary>
    private delegate void PixelRule(ReadOnlySpan<byte> rgba, Span<byte> rgb);

    /// <summary>Decodes a file.</summary>
    /// <exception cref="InputException">It is missing, no picture, malformed, cut off or too large.</exception>
    public static RgbPicture Decode(string path) => Decode(Read(path), path);

    /// <summary>Decodes the bytes of a file.</summary>
    /// <param name="file">The bytes.</param>
    /// <param name="name">What to call it in an error.</param>
    /// <exception cref="InputException">It is no picture, malformed, cut off or too large.</exception>
    public static RgbPicture Decode(byte[] file, string name)
    {
        ArgumentNullException.ThrowIfNull(file);
        if (!IsPicture(file))
            throw new InputException($"{name}: is no PNG, JPEG, WebP, BMP or GIF; give a picture in one of these formats");
        try
        {
            return Grey16Png.Is(file) ? WithSkia(Grey16Png.AsGreyAlpha(file), name, Grey16Png.Row) : WithSkia(file, name, DropAlpha);
        }
        catch (Exception e) when (e is DllNotFoundException or TypeInitializationException)
        {
            throw new RunException($"the picture library SkiaSharp cannot be loaded: {(e.InnerException ?? e).Message.ReplaceLineEndings(" ")}", e);
        }
    }

    private static RgbPicture WithSkia(byte[] file, string name, PixelRule rule)
    {
        using var data = SKData.CreateCopy(file);
        using var codec = SKCodec.Create(data);
        if (codec is null)
            throw new InputException($"{name}: the picture's header is malformed; make the file anew");
        var (width, height) = (codec.Info.Width, codec.Info.Height);
        if (width is < 1 or > RgbPicture.LongestSide || height is < 1 or > RgbPicture.LongestSide || (long)width * height > MostPixels)
            throw new InputException($"{name}: {width} by {height} pixels; give a picture with at most {MostPixels} pixels and no side over {RgbPicture.LongestSide}");
        if ((long)width * height > SmallPicture && (long)width * height / MostPixelsPerByte > file.Length)
            throw new InputException($"{name}: {file.Length} bytes claim to hold {width} by {height} pixels; no picture packs so well, save it anew");

        // Unpremultiplied, or pixels that are partly transparent would come out darker; no colour space, so that none is applied.
        using var bitmap = new SKBitmap();
        if (!bitmap.TryAllocPixels(new SKImageInfo(width, height, SKColorType.Rgba8888, SKAlphaType.Unpremul)))
            throw new RunException($"{name}: there is no memory for {width} by {height} pixels");
        var result = codec.GetPixels(bitmap.Info, bitmap.GetPixels());
        if (result != SKCodecResult.Success)
            throw new InputException($"{name}: the picture cannot be decoded ({result}); make the file anew");
        return new RgbPicture(width, height, ToRgb(bitmap, rule));
    }

    private static byte[] ToRgb(SKBitmap bitmap, PixelRule rule)
    {
        var rgb = new byte[3 * bitmap.Width * bitmap.Height];
        var rgba = bitmap.GetPixelSpan();
        for (var row = 0; row < bitmap.Height; row++)
            rule(rgba.Slice(row * bitmap.RowBytes, 4 * bitmap.Width), rgb.AsSpan(3 * bitmap.Width * row, 3 * bitmap.Width));
        return rgb;
    }

    private static void DropAlpha(ReadOnlySpan<byte> rgba, Span<byte> rgb)
    {
        for (int from = 0, to = 0; to < rgb.Length; from += 4, to += 3)
            (rgb[to], rgb[to + 1], rgb[to + 2]) = (rgba[from], rgba[from + 1], rgba[from + 2]);
    }

    private static bool IsPicture(ReadOnlySpan<byte> file) =>
        file.StartsWith((ReadOnlySpan<byte>)[0x89, (byte)'P', (byte)'N', (byte)'G', 13, 10, 26, 10])
        || file.StartsWith((ReadOnlySpan<byte>)[0xff, 0xd8, 0xff])
        || file.StartsWith("GIF8"u8)
        || file.StartsWith("BM"u8)
        || (file.StartsWith("RIFF"u8) && file.Length >= 12 && file.Slice(8, 4).SequenceEqual("WEBP"u8));

    private static byte[] Read(string path) => Reading(path, stream =>
    {
        if (stream.Length > MostBytes)
            throw new InputException($"{path}: {stream.Length} bytes are more than the {MostBytes} that a picture may have");
        var bytes = new byte[stream.Length];
        stream.ReadExactly(bytes);
        return bytes;
    });

    /// <summary>Reads a picture's file.</summary>
    /// <exception cref="InputException">It is missing or cannot be read.</exception>
    internal static T Reading<T>(string path, Func<FileStream, T> read)
    {
        try
        {
            using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, 1, FileOptions.SequentialScan);
            return read(stream);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new InputException($"{path}: there is no such picture; check the path", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw new InputException($"{path}: cannot be read: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }
}
