using System.IO.Compression;

namespace NativeLora.Data;

/// <summary>
/// Unpacks a file, but not one that is made to fill memory: text that a hundredth of its size stands for is no data set.
/// </summary>
internal sealed class BoundedGZip(string path, FileStream packed) : Stream
{
    private const int MostRatio = 100;

    // A small file of one word again and again may be meant.
    private const long Harmless = 8 << 20;

    private readonly GZipStream _unpacked = new(packed, CompressionMode.Decompress);
    private long _bytes;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => throw new NotSupportedException();

    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    /// <exception cref="InputException">There is far more in it than there should be.</exception>
    public override int Read(Span<byte> buffer)
    {
        var read = _unpacked.Read(buffer);
        _bytes += read;
        if (_bytes > Harmless && _bytes / MostRatio > packed.Length)
            throw new InputException($"{path}: {packed.Length} bytes unpack to more than {MostRatio} times as many; unpack the file first if that is right");
        return read;
    }

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public override void Flush() { }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
            _unpacked.Dispose();
        base.Dispose(disposing);
    }
}
