import ij.gui.EllipseRoi;
import ij.gui.OvalRoi;
import ij.gui.PolygonRoi;
import ij.gui.Roi;
import ij.gui.ShapeRoi;
import ij.io.RoiDecoder;
import ij.io.RoiEncoder;
import ij.process.ImageProcessor;
import java.awt.Rectangle;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.util.Collections;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;

/** ROIs as ImageJ itself reads, fills and writes them: {@code Rois fill|draw ROIS.zip X Y Z PIXELS}. */
public class Rois {
    /** Big endian, (Z, Y, X): the number that the name of a ROI is, 0 outside of all. */
    static short[] pixels;
    static int width, height, planes;

    public static void main(String[] given) throws Exception {
        width = Integer.parseInt(given[2]);
        height = Integer.parseInt(given[3]);
        planes = Integer.parseInt(given[4]);
        pixels = new short[planes * height * width];
        if (given[0].equals("draw")) draw(given[1]);
        try (ZipFile zip = new ZipFile(given[1])) {
            for (ZipEntry entry : Collections.list(zip.entries())) {
                byte[] content = zip.getInputStream(entry).readAllBytes();
                fill(new RoiDecoder(content, entry.getName()).getRoi());
            }
        }
        try (DataOutputStream out = new DataOutputStream(new FileOutputStream(given[5]))) {
            for (short value : pixels) out.writeShort(value);
        }
    }

    static void fill(Roi roi) {
        ImageProcessor mask = roi.getMask();
        Rectangle box = roi.getBounds();
        int plane = Math.max(Math.max(roi.getPosition(), roi.getZPosition()), 1) - 1;
        for (int y = 0; y < box.height; y++)
            for (int x = 0; x < box.width; x++)
                if (mask == null || mask.get(x, y) != 0)
                    pixels[(plane * height + box.y + y) * width + box.x + x] =
                        Short.parseShort(roi.getName());
    }

    /** What people draw with ImageJ's tools. */
    static void draw(String path) throws Exception {
        PolygonRoi spline = new PolygonRoi(
            new float[] {100, 140, 150, 110}, new float[] {10, 5, 40, 50}, 4, Roi.POLYGON);
        spline.fitSpline();
        ShapeRoi hole = new ShapeRoi(new OvalRoi(20, 65, 15, 15));
        Roi[] drawn = {
            new Roi(5, 5, 30, 20),
            new OvalRoi(50, 5, 31, 20),
            new PolygonRoi(new float[] {5.3f, 35.7f, 25.2f, 10.9f},
                new float[] {30.4f, 35.6f, 50.2f, 45.8f}, 4, Roi.FREEROI),
            new ShapeRoi(new OvalRoi(10, 55, 40, 40)).not(hole),
            new ShapeRoi(new Roi(60, 60, 20, 20)).or(new ShapeRoi(new Roi(90, 70, 20, 20))),
            new EllipseRoi(130, 70, 180, 90, 0.5),
            spline,
        };
        try (ZipOutputStream zip = new ZipOutputStream(new FileOutputStream(path))) {
            for (int number = 1; number <= drawn.length; number++) {
                drawn[number - 1].setName("" + number);
                drawn[number - 1].setPosition(number % planes + 1);
                ByteArrayOutputStream content = new ByteArrayOutputStream();
                new RoiEncoder(content).write(drawn[number - 1]);
                zip.putNextEntry(new ZipEntry(number + ".roi"));
                zip.write(content.toByteArray());
            }
        }
    }
}
